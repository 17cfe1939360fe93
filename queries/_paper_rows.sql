-- Which result each row of paper_table shows: those of the preset `paper`, and after them those of others' numerics.
--
--   place      order of the rows
--   imitation  whether the numerics are those of another code
--   row        as in the talk; of an imitation with its preset
--   named      the named attack that stands for the row
--   attack     the result's name; the named attack's if it has not run
--   preset     the result's; NULL if it has not run
create view _paper_rows as
with listed as (
    select distinct p.place, p.row, p.attack
    from _published as p
)
select l.place, false as imitation, l.row, l.attack as named, l.attack, a.preset
from listed as l
left join stored.attacks as a on a.attack = l.attack and a.named = l.attack and a.preset = 'paper'
union all
select l.place, true, l.row || ' (' || a.preset || ')', l.attack, a.attack, a.preset
from listed as l
join stored.attacks as a on a.named = l.attack and a.preset <> 'paper';

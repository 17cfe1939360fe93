-- As _curve, with each target by itself: `model` is the target, and everything is counted within it.
create view _curve_by_model as
with totals as (
    select
        s.attack,
        s.model,
        count(case when s.member then 1 end) as members,
        count(case when not s.member then 1 end) as nonmembers
    from scores as s
    group by s.attack, s.model
),
steps as (
    select
        s.attack,
        s.model,
        s.score,
        s.member,
        count(case when s.member then 1 end) over above as tp,
        count(*) over above as called
    from scores as s
    window above as (partition by s.attack, s.model order by s.score desc)
)
select
    p.attack,
    p.model,
    p.score,
    p.member,
    p.tp,
    p.called - p.tp as fp,
    t.members,
    t.nonmembers,
    p.tp / nullif(t.members, 0) as tpr,
    (p.called - p.tp) / nullif(t.nonmembers, 0) as fpr
from steps as p
join totals as t on t.attack = p.attack and t.model = p.model;

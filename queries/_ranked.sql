-- View exposure with each example's place among those of its attack, the most exposed first.
--
--   rank    from 1: by `detected`, then by how far the mean scores lie apart, then by example
--   ranked  how many there are of the attack
create view _ranked as
select
    e.*,
    row_number() over (
        partition by e.attack
        order by
            e.detected desc nulls last,
            e.mean_score_in - e.mean_score_out desc nulls last,
            e.example
    ) as rank,
    count(*) over (partition by e.attack) as ranked
from exposure as e;

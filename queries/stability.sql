-- Whether an attack exposes an example in all models that were trained on it, or more in some of them.
--
-- An example's percentile in a target is the share of the target's scored examples that score less, from 0 to 1; a tie
-- counts half. Percentiles of different targets, and of attacks with different scales, can be compared.
--
--   attack           name of the attack
--   example          the example
--   label            its class
--   mean_percentile  mean over the targets that were trained on it; NULL without any
--   std_percentile   standard deviation over these targets (n − 1 in the denominator); NULL for fewer than two
--   targets          how many of the scored targets were trained on it
--   preset           whose numerics: paper, or the code that is imitated
create view stability as
with placed as (
    select
        s.attack,
        s.example,
        s.member,
        -- The frame with ORDER BY ends with the last peer: rank − 1 score less, count at most as much.
        (rank() over below - 1 + count(*) over below) / (2 * count(*) over (partition by s.attack, s.model)) as percentile
    from scores as s
    window below as (partition by s.attack, s.model order by s.score)
)
select g.attack, g.example, e.label, g.mean_percentile, g.std_percentile, g.targets, a.preset
from (
    select
        p.attack,
        p.example,
        avg(p.percentile) filter (p.member) as mean_percentile,
        stddev_samp(p.percentile) filter (p.member) as std_percentile,
        count(case when p.member then 1 end) as targets
    from placed as p
    group by p.attack, p.example
) as g
join examples as e on e.example = g.example
left join attacks as a on a.attack = g.attack;

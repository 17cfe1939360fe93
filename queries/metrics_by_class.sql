-- How well each attack does on the examples of each class, over all of its targets together.
--
-- Thresholds for 1% and 0.1% FPR are those of view metrics, from the examples of all classes, so that the classes'
-- rates can be compared and their mean is the rate of the whole. Who is exposed more shows in both of them.
--
--   attack             name of the attack
--   preset             whose numerics: paper, or the code that is imitated
--   label              the class; -1 where there is none
--   members            pairs of a target and an example of the class that it was trained on
--   nonmembers         the other pairs of a target and an example of the class
--   auc                area under the ROC of the class, by ranks: a tie counts half
--   balanced_accuracy  the largest (TPR + 1 − FPR) / 2 over the class's own thresholds
--   tpr_at_1pct        TPR of the class at the threshold for 1% FPR
--   tpr_at_0_1pct      at that for 0.1% FPR
--   fpr_at_1pct        FPR of the class at the threshold for 1% FPR
--   fpr_at_0_1pct      at that for 0.1% FPR
create view metrics_by_class as
with thresholds as (
    select
        p.attack,
        p.nonmembers,
        min(p.threshold) filter (p.fpr <= 0.01) as at_1pct,
        min(p.threshold) filter (p.fpr <= 0.001) as at_0_1pct
    from _pooled as p
    group by p.attack, p.nonmembers
),
totals as (
    select
        s.attack,
        e.label,
        count(case when s.member then 1 end) as members,
        count(case when not s.member then 1 end) as nonmembers,
        count(case when s.member and s.score >= t.at_1pct then 1 end) as tp_1pct,
        count(case when s.member and s.score >= t.at_0_1pct then 1 end) as tp_0_1pct,
        count(case when not s.member and s.score >= t.at_1pct then 1 end) as fp_1pct,
        count(case when not s.member and s.score >= t.at_0_1pct then 1 end) as fp_0_1pct,
        any_value(t.nonmembers) as calibrated_on
    from scores as s
    join examples as e on e.example = s.example
    join thresholds as t on t.attack = s.attack
    group by s.attack, e.label
),
-- As in _curve: those who tie make one step.
steps as (
    select
        s.attack,
        e.label,
        s.member,
        count(case when s.member then 1 end) over above as tp,
        count(*) over above as called
    from scores as s
    join examples as e on e.example = s.example
    window above as (partition by s.attack, e.label order by s.score desc)
),
areas as (
    select
        t.attack,
        t.label,
        sum(if(p.member, p.tp - p.called, p.tp)) / nullif(2.0 * t.members * t.nonmembers, 0) as area,
        max(p.tp / nullif(t.members, 0) - (p.called - p.tp) / nullif(t.nonmembers, 0)) as advantage
    from steps as p
    join totals as t on t.attack = p.attack and t.label = p.label
    group by t.attack, t.label, t.members, t.nonmembers
)
select
    t.attack,
    a.preset,
    t.label,
    t.members,
    t.nonmembers,
    0.5 + r.area as auc,
    (1 + r.advantage) / 2 as balanced_accuracy,
    _most(t.tp_1pct, t.calibrated_on) / nullif(t.members, 0) as tpr_at_1pct,
    _most(t.tp_0_1pct, t.calibrated_on) / nullif(t.members, 0) as tpr_at_0_1pct,
    _most(t.fp_1pct, t.calibrated_on) / nullif(t.nonmembers, 0) as fpr_at_1pct,
    _most(t.fp_0_1pct, t.calibrated_on) / nullif(t.nonmembers, 0) as fpr_at_0_1pct
from totals as t
join areas as r on r.attack = t.attack and r.label = t.label
left join attacks as a on a.attack = t.attack
order by t.attack, t.label;

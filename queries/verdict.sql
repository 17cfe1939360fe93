-- What one attack says of each target's examples at a false positive rate calibrated on the other models only.
--
-- A target's threshold is the one that tpr_at_fpr would choose from the scores of all the other models: the smallest
-- at which at most the share `fpr` of their non-members is called a member.
--
--   model      the target
--   example    the example
--   member     the truth
--   predicted  true if the score is at least the threshold
--   score      the attack's score
--   threshold  the target's threshold; NULL if none qualifies, and then nobody is called a member
create macro verdict(attack, fpr) as table
with chosen as (
    select s.model, s.example, s.score, s.member
    from scores as s
    where s.attack = attack
),
nonmembers as (
    select c.model, c.score, row_number() over (order by c.score desc) as position
    from chosen as c
    where not c.member
),
-- How many false positives the non-members of the models other than `model` leave room for.
budget as (
    select o.model, o.others, _allowed(_rate(fpr), o.others) as allowed
    from (
        select
            c.model,
            (select count(*) from nonmembers) - count(case when not c.member then 1 end) as others
        from chosen as c
        group by c.model
    ) as o
),
-- The first of them that is one too many has this position among all: the target's own that come before are skipped.
excess as (
    select b.model, b.allowed + 1 + count(own.position) as position
    from budget as b
    left join (
        select n.model, n.position, n.position - row_number() over (partition by n.model order by n.position) as others_before
        from nonmembers as n
    ) as own on own.model = b.model and own.others_before <= b.allowed
    where b.others > 0
    group by b.model, b.allowed
),
-- A threshold qualifies if it is above this score.
bound as (
    select e.model, coalesce(n.score, '-infinity') as score
    from excess as e
    left join nonmembers as n on n.position = e.position
),
-- Each model's smallest score between one bound and the next.
nearest as (
    select c.model, b.score as bound, min(c.score) as score
    from chosen as c
    asof join (select distinct d.score from bound as d) as b on c.score > b.score
    group by c.model, b.score
),
calibrated as (
    select b.model, min(n.score) as threshold
    from bound as b
    join nearest as n on n.bound >= b.score and n.model <> b.model
    group by b.model
)
select
    c.model,
    c.example,
    c.member,
    coalesce(c.score >= t.threshold, false) as predicted,
    c.score,
    t.threshold
from chosen as c
left join calibrated as t on t.model = c.model;

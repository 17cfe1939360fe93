-- The threshold of each target at a false positive rate, calibrated on the other models only, of one attack or of all.
--
-- It is the one that tpr_at_fpr would choose from the scores of all the other models: the smallest of these scores at
-- which at most the share `fpr` of their non-members is called a member.
--
-- wanted: an attack's name; NULL: all attacks. A filter on the answer would not keep the others from being read.
--
--   attack     name of the attack
--   model      the target
--   threshold  NULL if none qualifies
create macro _thresholds(wanted, fpr) as table
with chosen as not materialized (
    select s.attack, s.model, s.score, s.member
    from scores as s
    where s.attack = wanted or wanted is null
),
nonmembers as (
    select
        c.attack,
        c.model,
        c.score,
        row_number() over (partition by c.attack order by c.score desc) as position
    from chosen as c
    where not c.member
),
targets as (
    select c.attack, c.model, count(case when not c.member then 1 end) as own
    from chosen as c
    group by c.attack, c.model
),
-- How many false positives the non-members of the models other than `model` leave room for.
budget as (
    select o.attack, o.model, o.others, _allowed(_rate(fpr), o.others) as allowed
    from (
        select t.attack, t.model, sum(t.own) over (partition by t.attack) - t.own as others
        from targets as t
    ) as o
),
-- The first of them that is one too many has this position among all: the target's own that come before are skipped.
excess as (
    select b.attack, b.model, b.allowed + 1 + count(own.position) as position
    from budget as b
    left join (
        select
            n.attack,
            n.model,
            n.position,
            n.position - row_number() over (partition by n.attack, n.model order by n.position) as others_before
        from nonmembers as n
    ) as own on own.attack = b.attack and own.model = b.model and own.others_before <= b.allowed
    where b.others > 0
    group by b.attack, b.model, b.allowed
),
-- A threshold qualifies if it is above this score.
bound as (
    select e.attack, e.model, coalesce(n.score, '-infinity') as score
    from excess as e
    left join nonmembers as n on n.attack = e.attack and n.position = e.position
),
limits as (
    select d.attack, min(d.score) as lowest, max(d.score) as highest
    from bound as d
    group by d.attack
),
-- Where thresholds may lie: above the lowest bound, up to the second least, over the models, of the least score that
-- each has above the highest bound. Some thousand scores as a rule: ASOF JOIN would sort them all.
span as (
    select l.attack, l.lowest, coalesce(max(e.least), 'infinity') as highest
    from limits as l
    left join (
        select c.attack, min(c.score) as least
        from chosen as c
        join limits as h on h.attack = c.attack and c.score > h.highest
        group by c.attack, c.model
        qualify row_number() over (partition by c.attack order by min(c.score)) <= 2
    ) as e on e.attack = l.attack
    group by l.attack, l.lowest
),
-- Each model's smallest score between one bound and the next.
nearest as (
    select a.attack, a.model, b.score as bound, min(a.score) as score
    from (
        select c.attack, c.model, c.score
        from chosen as c
        join span as w on w.attack = c.attack and c.score > w.lowest and c.score <= w.highest
    ) as a
    asof join (select distinct d.attack, d.score from bound as d) as b on b.attack = a.attack and a.score > b.score
    group by a.attack, a.model, b.score
),
settled as (
    select b.attack, b.model, min(n.score) as threshold
    from bound as b
    join nearest as n on n.attack = b.attack and n.bound >= b.score and n.model <> b.model
    group by b.attack, b.model
)
select t.attack, t.model, c.threshold
from targets as t
left join settled as c on c.attack = t.attack and c.model = t.model;

-- Every score of a view as a threshold: calling a member who scores at least as much.
--
-- source: the view's name, '_pooled_scores', '_target_scores' or '_power_scores'. Each (attack, model) of it has a curve.
--
--   attack      name of the attack, or of a result with few models
--   model       the target; NULL: all targets together
--   score       the threshold
--   member      whether the one who has this score is a member
--   tp, fp      members and non-members whose score is at least the threshold
--   members     how many there are
--   nonmembers  likewise
--   tpr, fpr    tp / members and fp / nonmembers. The quotient is compared with an FPR, never fp with FPR × nonmembers,
--               because a quotient of integers that equals a decimal fraction rounds to the same double
create macro _curve(source) as table
with totals as (
    select
        s.attack,
        s.model,
        count(case when s.member then 1 end) as members,
        count(case when not s.member then 1 end) as nonmembers
    from query_table(source) as s
    group by s.attack, s.model
),
steps as (
    -- The frame of a window with ORDER BY ends with the last peer, so those who tie make one step.
    select
        s.attack,
        s.model,
        s.score,
        s.member,
        count(case when s.member then 1 end) over above as tp,
        count(*) over above as called
    from query_table(source) as s
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
join totals as t on t.attack = p.attack and t.model is not distinct from p.model;

-- Whether an example was used to train a model: what each attack says, how surely, at which FPR.
--
-- p_value tests "the model was not trained on it" against the models that are known not to have been: under that
-- hypothesis, and if the target could be exchanged for any of them (the same training but for its draw of the data), at
-- most the share α of such targets has a p-value ≤ α. With n other OUT models it is never below 1 / (n + 1), so that few
-- models cannot make it small. It is one test: among many examples asked about, some are small by chance. fpr needs no
-- such models: it looks on all examples, and asks how many who were not trained on score as much. A model that is not
-- committed, or an example that there is not, is an error.
--
--   attack   name of the attack
--   model    the target
--   example  the example
--   score    the attack's score: higher means member
--   p_value  (1 + k) / (1 + n): n the other models without the example, k those of them in which it scores at least as
--            much; NULL without any
--   fpr      share of the other models' non-members that score at least as much: the FPR at which a threshold of this
--            score calls a member; NULL without any
--   member   the truth
--   preset   whose numerics: paper, or the code that is imitated
create macro was_member(model, example) as table
with target as (
    select s.attack, s.model, s.example, s.score, s.member
    from scores as s
    where s.model = model and s.example = example
),
of_example as (
    select t.attack, count(*) as others, count(case when s.score >= t.score then 1 end) as above
    from target as t
    join scores as s on s.attack = t.attack
    where s.example = example and s.model <> model and not s.member
    group by t.attack
),
of_all as (
    select t.attack, count(*) as others, count(case when s.score >= t.score then 1 end) as above
    from target as t
    join scores as s on s.attack = t.attack
    where s.model <> model and not s.member
    group by t.attack
)
select r.attack, r.model, r.example, r.score, r.p_value, r.fpr, r.member, r.preset
from (
    select
        t.attack,
        t.model,
        t.example,
        t.score,
        (1 + e.above) / (1 + e.others) as p_value,
        o.above / o.others as fpr,
        t.member,
        a.preset
    from target as t
    left join of_example as e on e.attack = t.attack
    left join of_all as o on o.attack = t.attack
    left join attacks as a on a.attack = t.attack
    union all
    -- No row, or an error. Every column hangs on the check, by an expression of its own: otherwise a filter that no row
    -- of this branch could pass would leave out the check as well.
    select
        k.none[1],
        k.none[2]::bigint,
        k.none[3]::bigint,
        k.none[4]::double,
        k.none[5]::double,
        k.none[6]::double,
        k.none[7]::boolean,
        k.none[8]
    from (select [nullif(_known(model, example)::varchar, 'true')] as none) as k
    where k.none[1] is not null
) as r
order by r.attack;

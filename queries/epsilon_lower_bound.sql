-- How private the training cannot be: lower bounds on the ε of its (ε, δ) differential privacy, from attacks' guesses.
--
-- A bound is of the training algorithm: with the stated confidence none that is more private lets an attack guess so
-- well. It does not say how private training is, and ε = 0 is evidence of nothing. Neighbouring training sets differ in
-- one example, present or absent. A claim of (ε, δ) is contradicted by rows of that δ or a larger one only.
--
--   attack      name of the attack whose scores are the guesses
--   method      one_run: many examples of one model are guessed (Steinke, Nasr & Jagielski 2023);
--               clopper_pearson: one example is guessed in many models
--   model       the target of a one_run audit; NULL for one row of all targets, and where no bound is given
--   example     the example of a clopper_pearson audit, which other models chose
--   guesses     how many guesses were made: the examples that score highest, or highest and lowest; or the models
--   correct     how many of them were right
--   epsilon     the bound; NULL if none is given
--   delta       the δ that it is for
--   confidence  with which all rows of the same attack, method and δ hold together
--   assumption  what has to be true for that
--   refused     why no bound is given, and what to do about it; NULL where one is
--   preset      whose numerics: paper, or the code that is imitated
create view epsilon_lower_bound as
select
    b.attack,
    b.method,
    b.model,
    b.example,
    b.guesses,
    b.correct,
    b.epsilon,
    b.delta,
    b.confidence,
    b.assumption,
    b.refused,
    a.preset
from stored.epsilon as b
left join attacks as a on a.attack = b.attack
order by b.attack, b.method, b.delta, b.model nulls first;

-- What each attack says of each model and example. Higher always means member.
--
--   attack   name of the attack
--   model    the target; everything the score was computed with is from the other models
--   example  the example whose membership is guessed
--   score    finite; its scale is the attack's own
--   member   the truth
create view scores as
select s.attack, s.model, s.example, s.score, s.member
from stored.scores as s;

-- What `_curve` takes of the scores, each target by itself.
create view _target_scores as
select s.attack, s.model, s.score, s.member
from scores as s;

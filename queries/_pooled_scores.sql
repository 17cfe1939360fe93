-- What `_curve` takes of the scores, all targets of an attack together.
create view _pooled_scores as
select s.attack, null::bigint as model, s.score, s.member
from scores as s;

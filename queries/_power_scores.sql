-- What `_curve` takes of the scores with few models, all targets of a result together; `attack` is the result's name.
create view _power_scores as
select s.name as attack, null::bigint as model, s.score, s.member
from stored.power_scores as s;

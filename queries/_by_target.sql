-- The points of each attack on each target by itself.
create view _by_target as
from _points('_target_scores');

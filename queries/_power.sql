-- The points of each attack with each number of models and queries, over all of its targets together.
create view _power as
from _points('_power_scores');

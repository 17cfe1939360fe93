-- The points of each attack over all of its targets together. Whoever asks for several of the views that are made of
-- them can put a table in the place of this view, and has the scores sorted once.
create view _pooled as
from _points('_pooled_scores');

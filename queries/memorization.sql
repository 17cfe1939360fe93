-- Memorization of each example's label (Feldman & Zhang 2020), from the last run of attack `memorization`.
--
--   example        the example
--   label          its class
--   p_correct_in   share of the models trained on it that predict its label
--   p_correct_out  share of the other models that do
--   memorization   p_correct_in - p_correct_out
create view memorization as
select r.example, e.label, r.p_correct_in, r.p_correct_out, r.memorization
from stored.memorization as r
join stored.examples as e on e.example = r.example;

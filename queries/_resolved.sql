-- A count of true positives, or NULL where the FPR is finer than the data resolves: nonmembers × fpr < 1.
create macro _resolved(tp, fpr, nonmembers) as
case when 1 / nonmembers <= fpr then tp end;

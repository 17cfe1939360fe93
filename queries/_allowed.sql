-- The largest whole number k with k / n <= fpr, at most n. FPR × n may round to either side of it.
create macro _allowed(fpr, n) as
case
    when (floor(fpr * n) + 1) / n <= fpr then least(floor(fpr * n) + 1, n)
    when floor(fpr * n) / n <= fpr then least(floor(fpr * n), n)
    else floor(fpr * n) - 1
end;

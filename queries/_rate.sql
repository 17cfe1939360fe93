-- A false positive rate that somebody asks for, as a double; an error unless it is a number from 0 to 1.
create macro _rate(fpr) as
case
    when fpr between 0 and 1 then fpr::double
    else error('fpr is ' || coalesce(fpr::varchar, 'NULL') || ', expected a number from 0 to 1')
end;

-- A share of members among those who are asked about, as a double; an error unless it is a number from 0 to 1.
create macro _prior(prior) as
case
    when prior between 0 and 1 then prior::double
    else error('prior is ' || coalesce(prior::varchar, 'NULL') || ', expected a number from 0 to 1')
end;

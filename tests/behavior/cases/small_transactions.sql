-- Many transactions of one change each, over two tables.
-- @opt: tables=t,log
-- @phase:setup
create table t(id int primary key, n int not null default 0);
create table log(id bigserial primary key, what text, at int);
insert into t select generate_series(1, 50);
-- @phase:live
do $$ begin for i in 1..1500 loop
  update t set n = n + 1 where id = i % 50 + 1;
  commit;
  insert into log(what, at) values ('step', i);
  commit;
  if i % 10 = 0 then delete from log where at = i - 5; commit; end if;
end loop; end $$;

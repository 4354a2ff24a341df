-- One transaction of many rows, larger than the buffers.
-- @opt: tables=t
-- @phase:setup
create table t(id int primary key, v varchar(2000));
create table digits(n int primary key);
insert into digits values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
-- @phase:live
begin;
insert into t select a.n+b.n*10+c.n*100+d.n*1000, repeat('x',2000) from digits a, digits b, digits c, digits d;
insert into t select 10000+a.n+b.n*10+c.n*100+d.n*1000, repeat('y',2000) from digits a, digits b, digits c, digits d;
update t set v='short' where id % 3 = 0;
delete from t where id % 5 = 0;
commit;

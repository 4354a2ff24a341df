-- A table without a key: equal rows are counted.
-- @opt: tables=t
-- @phase:setup
create table t(a int, v varchar(9));
insert into t values (1,'x'),(1,'x'),(2,null),(2,null),(3,'z');
-- @phase:live
delete from t where a=1 limit 1;
insert into t values (1,'x'),(1,'x'),(4,'');
update t set v='q' where a=2 limit 1;
update t set a=9 where a=3;
delete from t where a=4;

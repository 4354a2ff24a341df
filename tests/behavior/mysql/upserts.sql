-- The same rows again and again, in transactions of every size, keys moved and given back.
-- @opt: tables=t
-- @phase:setup
create table t(id int primary key, v varchar(20), n int not null default 0, big text);
insert into t values (1,'a',0,repeat('x',5000)),(2,'b',0,null),(3,'c',0,'');
-- @phase:live
insert into t(id, v) values (1,'z') on duplicate key update v='up', n=n+1;
replace into t values (2,'r',9,'new');
begin;
update t set id=10 where id=1;
update t set id=1 where id=3;
update t set id=3 where id=10;
commit;
begin;
delete from t where id=3;
insert into t values (3,'back',1,repeat('y',3000));
savepoint s;
update t set n=100;
rollback to s;
update t set n=n+1 where id<3;
commit;
begin;
delete from t;
rollback;
update t set v=null where id=2;
insert into t values (4,'four',4,'4'),(5,'five',5,'5');
delete from t where id=5;

-- Row images that leave columns out.
-- @opt: tables=t
-- @phase:setup
create table t(id int primary key, a varchar(10), b text, c varchar(10) default 'dflt', n int);
insert into t values (1,'a','b','c',1),(2,'a','b','c',2),(4,'a',null,'c',4);
-- @phase:live
set session binlog_row_image='MINIMAL';
update t set a='x' where id=1;
update t set id=9, c=null where id=2;
insert into t(id,a) values (5,'five');
update t set b='late' where id=5;
delete from t where id=4;
set session binlog_row_image='NOBLOB';
update t set n=n+1;
insert into t(id,b) values (6,'blob');

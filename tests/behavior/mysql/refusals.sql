-- What can't be kept stops alone and says why; the others go on.
-- @opt: tables=t,zero,nobody,key_ci stopped=zero:zero+column~d,nobody:MyISAM,key_ci:ASCII
-- @phase:setup
set session sql_mode='';
create table t(id int primary key, v text);
create table zero(id int primary key, d date);
create table nobody(id int primary key) engine=MyISAM;
create table key_ci(k varchar(9) collate utf8mb4_general_ci primary key);
insert into t values (1,'a');
insert into zero values (1,'0000-00-00');
insert into key_ci values ('straße');
-- @phase:live
insert into t values (2,'b');
set session sql_mode='';
insert into zero values (2,'2024-00-01');
insert into key_ci values ('é');
update t set v='c' where id=1;

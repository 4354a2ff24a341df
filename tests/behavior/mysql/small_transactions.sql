-- Many transactions of one change each, over two tables.
-- @opt: tables=t,log
-- @phase:setup
create table t(id int primary key, n int not null default 0);
create table log(id bigint auto_increment primary key, what varchar(9), at int);
insert into t(id) values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
-- @sql-raw: create procedure steps() begin declare i int default 1; while i <= 600 do update t set n=n+1 where id=i%10; insert into log(what,at) values ('step',i); if i%10=0 then delete from log where at=i-5; end if; set i=i+1; end while; end
-- @phase:live
call steps();

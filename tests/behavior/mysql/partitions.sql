-- Partitions that are emptied, dropped and exchanged leave no rows behind.
-- @opt: tables=pt,x
-- @phase:setup
create table pt(id int primary key, v int) partition by range(id)(partition p0 values less than (10), partition p1 values less than (20), partition p2 values less than (30), partition p3 values less than (40));
create table x(id int primary key, v int);
insert into pt values (1,1),(11,1),(21,1),(31,1);
insert into x values (2,2),(3,3);
-- @phase:live
insert into pt values (12,1);
alter table pt truncate partition p1;
alter table pt drop partition p2;
alter table pt exchange partition p0 with table x;
insert into pt values (13,5);
alter table pt add partition (partition p4 values less than (50));
insert into pt values (41,5);

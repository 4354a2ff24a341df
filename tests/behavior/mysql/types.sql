-- Every type with its ends, before and after the start.
-- @opt: tables=t,u
-- @phase:setup
set session time_zone='+00:00';
create table t(id int primary key, t1 tinyint, tu tinyint unsigned, su smallint unsigned, m mediumint, mu mediumint unsigned, iu int unsigned, b bigint, bu bigint unsigned, d decimal(20,5), dd decimal(65,30), f float, g double, y year, bo boolean, b1 bit(1), b9 bit(9));
create table u(id int primary key, da date, ti time(3), dt datetime, d6 datetime(6), ts timestamp(3) null, c char(5), vc varchar(300), l text character set latin1, bi binary(4), vb varbinary(9), bl blob, e enum('a','it''s'), s set('x','y','z'), j json, gn int as (id * 2) stored);
insert into t values (1,-128,255,65535,-8388608,16777215,4294967295,-9223372036854775808,18446744073709551615,-12345.67890,99999999999999999999999999999999999.000000000000000000000000000001,0.1,0.30000000000000004,1901,true,b'1',b'100000001'),(2,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null);
insert into u values (1,'1000-01-01','-838:59:59.000','9999-12-31 23:59:59','1000-01-01 00:00:00.000001','2038-01-19 03:14:07.999','a  ','Grüße 😀','café',x'00ff0000',x'00',x'0001','it''s','x,z','{"b": [1, 2.5, null], "a": "é"}',default),(2,null,null,null,null,null,null,null,null,null,null,null,null,null,null,default);
-- @phase:live
set session time_zone='+05:30';
insert into t select id+100,t1,tu,su,m,mu,iu,b,bu,d,dd,f,g,y,bo,b1,b9 from t;
insert into u(id,da,ti,dt,d6,ts,c,vc,l,bi,vb,bl,e,s,j) select id+100,da,ti,dt,d6,ts,c,vc,l,bi,vb,bl,e,s,j from u;
update u set ts='2001-09-09 07:16:40.5', dt='2001-09-09 07:16:40', j='[]' where id=1;
update t set f=-3.4028234e38, g=5e-324, bu=9223372036854775808 where id=1;

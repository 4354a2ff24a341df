-- Names with dots, blanks, quotes, capitals and other letters.
-- @opt: tables=Größe,two~words
-- @phase:setup
create table `Größe`(`id` int primary key, `Select` int, `a b` text, `it's "so"` int);
create table `two words`(`id` int primary key, `ß` int);
insert into `Größe` values (1,1,'a',1);
insert into `two words` values (1,1);
-- @phase:live
insert into `Größe` values (2,2,'b',2);
update `Größe` set `it's "so"`=5 where id=1;
/* a comment */ alter /*!50000 */ table `two words` add column `c"x` int null comment 'it''s; -- ` \' tricky';
insert into `two words` values (2,2,2);

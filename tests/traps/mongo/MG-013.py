#!/usr/bin/env python3
# MG-013  Resume token older than the oplog (ChangeStreamHistoryLost 286)
# expected: State "history lost"; re-snapshot that also removes vanished _ids: {2,v:9},{3}. Harness: replSetResizeOplog {size: 990} and fill 1.2 GB while the daemon is down.
from case import *
c=Case('MG-013'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'v':1},{'_id':2,'v':2}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.delete_one({'_id':1})
db.c.update_one({'_id':2},{'$set':{'v':9}})
db.c.insert_one({'_id':3})
# harness: for i in range(1300): db.filler.insert_one({'x':'z'*1000000})  then db.filler.drop()
c.done()

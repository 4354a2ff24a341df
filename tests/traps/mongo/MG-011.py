#!/usr/bin/env python3
# MG-011  drop, rename, dropDatabase, invalidate; collection re-created
# expected: c: only {_id:9}; r2: {_id:1}; r gone.
from case import *
c=Case('MG-011'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1},{'_id':2}])
db.r.insert_one({'_id':1})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.drop()
db.c.insert_one({'_id':9})
db.r.rename('r2')
c.done()

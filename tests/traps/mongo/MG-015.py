#!/usr/bin/env python3
# MG-015  Idle collection: only postBatchResumeToken moves
# expected: After 1.2 GB of writes in another database and a restart: no 286; {_id:1},{_id:2}.
from case import *
c=Case('MG-015'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.insert_one({'_id':2})
c.done()

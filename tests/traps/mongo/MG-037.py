#!/usr/bin/env python3
# MG-037  Delete of a document that the snapshot has not read yet, then re-insert with the same _id
# expected: 19,999 + re-insert: _id 19999 has v='re', _id 19998 absent.
from case import *
c=Case('MG-037'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':i,'v':'s'} for i in range(20000)])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.delete_many({'_id':{'$in':[19998,19999]}})
db.c.insert_one({'_id':19999,'v':'re'})
c.done()

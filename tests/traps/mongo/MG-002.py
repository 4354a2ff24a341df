#!/usr/bin/env python3
# MG-002  updateLookup returns a later state: version runs ahead of the event, then the shard key / another update event arrives
# expected: {_id:1, gen:2, v:'new'} only.
from case import *
c=Case('MG-002'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'gen':1,'a':[1]})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},{'$push':{'a':2}})
db.c.update_one({'_id':1},{'$push':{'a':3}})
db.c.delete_one({'_id':1})
db.c.insert_one({'_id':1,'gen':2,'v':'new'})
c.done()

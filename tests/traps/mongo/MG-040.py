#!/usr/bin/env python3
# MG-040  Clock: wallTime / clusterTime jumps, equal clusterTime ordinals
# expected: v='third'.
from case import *
c=Case('MG-040'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'v':'first'})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},{'$set':{'v':'second'}})
db.c.update_one({'_id':1},{'$set':{'v':'third'}})
c.done()

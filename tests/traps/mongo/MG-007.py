#!/usr/bin/env python3
# MG-007  null vs missing vs $unset
# expected: 1: a missing; 2: a null; 3: sub.x missing, sub.y=2.
from case import *
c=Case('MG-007'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'a':1,'b':1},{'_id':2,'a':1,'b':1},{'_id':3,'sub':{'x':1,'y':2}}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},{'$unset':{'a':''}})
db.c.update_one({'_id':2},{'$set':{'a':None}})
db.c.update_one({'_id':3},{'$unset':{'sub.x':''}})
c.done()

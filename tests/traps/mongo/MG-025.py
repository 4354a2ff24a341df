#!/usr/bin/env python3
# MG-025  replaceOne drops fields; upsert; findAndModify; bulk; no-op update
# expected: 1: {n:1}; 2: {u:1}; 3 unchanged.
from case import *
c=Case('MG-025'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'old':1,'x':1},{'_id':3,'k':1}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.replace_one({'_id':1},{'n':1})
db.c.update_one({'_id':2},{'$set':{'u':1}},upsert=True)
db.c.update_one({'_id':3},{'$set':{'k':1}})
c.done()

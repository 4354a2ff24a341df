#!/usr/bin/env python3
# MG-008  truncatedArrays
# expected: {_id:1,arr:['a'],keep:'value'}
from case import *
c=Case('MG-008'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'arr':['a','b','c'],'keep':'value'})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},[{'$set':{'arr':{'$slice':['$arr',1]}}}])
c.done()

#!/usr/bin/env python3
# MG-038  Collection created after start (database-level watch), also inside a transaction, also with validator / collation
# expected: n = {_id:1},{_id:2}; ci = {'_id':'a'} only (second insert fails: _id index uses the collation).
from case import *
c=Case('MG-038'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1})
c.phase("live")
# ---- while it streams (or while it is down)
db.n.insert_one({'_id':1})
with c.client.start_session() as s:
    with s.start_transaction(): db.n.insert_one({'_id':2},session=s)
from pymongo.collation import Collation
db.create_collection('ci',collation=Collation('en',strength=2))
db.ci.insert_one({'_id':'a'})
try:
    db.ci.insert_one({'_id':'A'})
except Exception as e: print('expected duplicate:',e.__class__.__name__)
c.done()

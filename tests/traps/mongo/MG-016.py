#!/usr/bin/env python3
# MG-016  Multi-document transaction (several collections, > 16 MB, > 1 oplog entry)
# expected: a: 3,000, b: 1 document; ordering by clusterTime alone is not total: use (clusterTime, txnOpIndex / token). kill -9 in the middle.
from case import *
c=Case('MG-016'); db=c.db
# ---- before the daemon starts
db.create_collection('a'); db.create_collection('b')
c.phase("live")
# ---- while it streams (or while it is down)
with c.client.start_session() as s:
    with s.start_transaction():
        for i in range(3000): db.a.insert_one({'_id':i,'p':'x'*1000},session=s)
        db.b.insert_one({'_id':1,'n':3000},session=s)
with c.client.start_session() as s:
    s.start_transaction(); db.b.insert_one({'_id':2},session=s); s.abort_transaction()
c.done()

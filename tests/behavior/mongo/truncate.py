# Collections that are emptied: by a delete of all, by a drop, within a transaction, and not after all.
from case import *
c = Case('truncate'); db = c.db
for name in ('alone', 'around', 'back', 'dropped', 'twice'):
    db[name].insert_many([{'_id': n, 'v': 'v'} for n in range(100)])
c.phase("live")
db.alone.delete_many({})
with c.client.start_session() as s, s.start_transaction():
    db.around.insert_one({'_id': 1000, 'v': 'lost'}, session=s)
    db.around.delete_many({}, session=s)
    db.around.insert_many([{'_id': 1, 'v': 'kept'}, {'_id': 2000, 'v': 'kept'}], session=s)
db.around.update_one({'_id': 1}, {'$set': {'v': 'after'}})
with c.client.start_session() as s:
    s.start_transaction()
    db.back.delete_many({}, session=s)
    s.abort_transaction()
db.dropped.drop()
db.dropped.insert_one({'_id': 7, 'v': 'made again'})
db.twice.delete_many({})
db.twice.insert_one({'_id': 1, 'v': 'x'})
db.twice.delete_many({})
c.done()

# One transaction of many documents, larger than the buffers.
from case import *
c = Case('large_transaction'); db = c.db
db.t.insert_many([{'_id': -n, 'v': 'before', 'big': 'b' * 200} for n in range(1, 501)])
c.phase("live")
with c.client.start_session() as s, s.start_transaction():
    db.t.insert_many([{'_id': n, 'v': 'new', 'big': 'x' * 2000} for n in range(1500)], session=s)
    db.t.update_many({'_id': {'$mod': [3, 0]}}, {'$set': {'v': 'short', 'big': ''}}, session=s)
    db.t.delete_many({'_id': {'$mod': [5, 0]}}, session=s)
db.t.insert_one({'_id': 'after', 'v': 'a', 'big': None})
c.done()

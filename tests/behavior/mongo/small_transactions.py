# Many transactions of one change each, over two collections.
from case import *
c = Case('small_transactions'); db = c.db
db.t.insert_many([{'_id': n, 'n': 0} for n in range(50)])
db.log.insert_one({'_id': 0, 'what': 'step'})
c.phase("live")
for i in range(1, 201):
    db.t.update_one({'_id': i % 50}, {'$inc': {'n': 1}})
    db.log.insert_one({'_id': i, 'what': 'step'})
    if i % 10 == 0:
        db.log.delete_one({'_id': i - 5})
c.done()

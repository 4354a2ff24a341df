"""The reviews of the demo's shop, in MongoDB.

    feedback.py make URL                2,000 reviews of the shop's customers
    feedback.py load URL FOLDER         writes until FOLDER/stop is there; from FOLDER/column on some reviews
                                        get a field that none had before. Prints what each turn wrote.
"""

import datetime
import itertools
import os
import sys
import time

from bson import Decimal128, Int64
from pymongo import MongoClient

DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
WORDS = ["fin", "très bien", "kötü değil", "no “complaints”", "hygge", "weiß nicht", "👍"]


def review(number, customer):
    """Deterministic: no random numbers, no present time."""
    return {
        "_id": number,
        "customer_id": Int64(customer),
        "sku": f"SKU-{number * 13:08}",
        "stars": 1 + number * 7 % 5,
        "text": " ".join(WORDS[number * k % 7] for k in range(1, 2 + number % 6)),
        "tags": [f"t{number % k}" for k in range(2, 2 + number % 4)],
        "price": Decimal128(f"{number % 500}.{number % 100:02}"),
        "seen": {"from": "web" if number % 3 else "app", "step": number % 9},
        "at": DAY + datetime.timedelta(minutes=number, milliseconds=number % 1000),
    }


def make(reviews):
    reviews.insert_many([review(n, n * 37 % 8000 + 1) for n in range(1, 2_001)])


def turn(reviews, t, top, answered):
    """Some changes; how many documents were inserted, updated and deleted."""
    reviews.insert_one(review(top, t * 131 % 8000 + 1))
    updated = reviews.update_one({"_id": t * 7907 % top + 1}, {"$inc": {"stars": -1}, "$set": {"seen.step": t % 9}}).modified_count
    updated += reviews.update_one({"_id": t * 6101 % top + 1}, {"$push": {"tags": f"late{t % 10}"}}).modified_count
    updated += reviews.update_one({"_id": t * 211 % top + 1}, {"$unset": {"text": ""}}).modified_count
    updated += reviews.replace_one({"_id": t * 971 % top + 1}, review(t * 971 % top + 1, t % 8000 + 1)).modified_count
    if answered:
        answer = {"$set": {"answer": {"by": "shop", "text": "Mange tak!", "turn": t}}}
        updated += reviews.update_one({"_id": t * 419 % top + 1}, answer).modified_count
    deleted = reviews.delete_one({"_id": t * 503 % top + 1}).deleted_count
    return 1, updated, deleted


def load(reviews, folder):
    for t in itertools.count(1):
        if os.path.exists(os.path.join(folder, "stop")):
            return
        print(*turn(reviews, t, 2_000 + t, os.path.exists(os.path.join(folder, "column"))), flush=True)
        time.sleep(0.05)


def main():
    what, url, *rest = sys.argv[1:]
    reviews = MongoClient(url, tz_aware=True)["feedback"]["reviews"]
    make(reviews) if what == "make" else load(reviews, *rest)


if __name__ == "__main__":
    main()

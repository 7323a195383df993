"""`fastwam` as one of several processes, of which one lags: LIMIT DELAY ARGUMENT..., in s.

The others wait for it as long as LIMIT says.
"""

import datetime
import os
import sys
import time

from fastwam_policy.cli.main import main
from fastwam_policy.training import trainer

if __name__ == "__main__":
    limit, delay = map(float, sys.argv[1:3])
    trainer._LAG = datetime.timedelta(seconds=limit)
    cache_latents = trainer.cache_latents

    def late(*given):
        if os.environ["RANK"] == "1":
            time.sleep(delay)
        cache_latents(*given)

    trainer.cache_latents = late
    main(sys.argv[3:])

"""Everything in Redis: runs, their events, leases and queue slots.

Every change of more than one key is a script in `lua/`, so that it is atomic. Release 0.1.0 shares these keys, so their
names and contents are fixed. All begin with `autoseq:`. docs/architecture.md has the diagram of the states of a run.

| key                    | type       | holds                                   | written by                          |
|------------------------|------------|-----------------------------------------|-------------------------------------|
| run:<id>               | hash       | the run's state, owner and attempts     | create_run, progress, take_lease,   |
|                        |            |                                         | count_attempt, count_fault,         |
|                        |            |                                         | reopen_run                          |
| run:<id>:record        | string     | the request (RunRecord)                 | create_run                          |
| run:<id>:events        | stream     | the run's events                        | create_run, progress                |
| run:<id>:preview       | string     | the last preview                        | progress                            |
| run:<id>:cancel        | string     | set when the run should stop            | request_cancel, reopen_run          |
| run:<id>:lease         | string     | the token of the worker that runs it    | take_lease, release_lease           |
| runs                   | sorted set | the runs, by time of submission         | create_run                          |
| runs:open              | sorted set | those that have not ended               | create_run, reopen_run, progress    |
| leases                 | sorted set | leased runs, by when the lease lapses   | take_lease, release_lease,          |
|                        |            |                                         | requeue_run                         |
| lines                  | set        | the queue slots                         | create_run, reopen_run              |
| waiting:<queue slot>   | sorted set | the runs that wait there, by when they  | create_run, reopen_run,             |
|                        |            | joined it                               | requeue_run, take_lease             |
| started                | hash       | queue slot -> when the latest started   | take_lease                          |
|                        |            | run had joined it                       |                                     |
| reconciler             | string     | the token of the elected reconciler     | elect_reconciler                    |
| idempotency:<key>      | string     | the run that owns the key               | claim_key                           |
| run:<id>:alias         | string     | the run of a repeated idempotency key   | Runs.add_alias                      |
| specs                  | hash       | model name -> ModelSpec                 | Runs.announce                       |
| models                 | hash       | model name -> ModelSpec as 0.1.0 has it | Runs.announce                       |
| workers                | hash       | worker name -> WorkerInfo               | announce_worker, Workers.leave      |
| workers:expiries       | sorted set | worker names, by when they expire       | announce_worker, Workers.leave      |
| unacked_index          | sorted set | the broker's unacknowledged messages    | Celery; Lease.renew                 |
"""

# %% [markdown]
# # Ask an agent from a notebook

# %%
import os

from tollgate_client import SyncTollgate

tollgate = SyncTollgate(os.environ["TOLLGATE_URL"], lambda previous: os.environ["TOLLGATE_TOKEN"])

# %% The tools that the plan allows
for tool in tollgate.tools():
    print(tool["name"], "-", tool["description"])

# %% One run: its events as they arrive, and its answer
run = tollgate.run("How is my workload doing?")
for event in run:
    if event["type"] == "agent_thinking":
        print(event["thought"])
print(run.result().text)

# %% What it cost
today = tollgate.usage()["today"]
print(today["calls"], "calls today,", today["units"], "units")

# %%
tollgate.close()

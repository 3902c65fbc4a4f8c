import subprocess, sys, time
from pathlib import Path
import pytest
CHILD = Path(__file__).parent / "room_run.py"
def run(plan, store, tmp, name, **o):
    (tmp/"plan.json").write_text(plan.model_dump_json())
    t=time.time()
    r=subprocess.run([sys.executable,"-W","ignore",CHILD,tmp/"plan.json",store.folder,tmp/name,tmp/f"{name}.st",*[f"{k}={v}" for k,v in o.items()]],capture_output=True,text=True)
    print(name, round(time.time()-t,1), o); print(r.stdout, r.stderr[-3000:])
def test_it(make_plan, store, tmp_path):
    p=make_plan(steps=5, evaluate_every=5, checkpoint_seconds=0.0)
    run(p,store,tmp_path,"held2",each=65536,above=300)
    run(p,store,tmp_path,"held",each=65536,above=120)

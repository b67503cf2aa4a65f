# The service alone: no TensorFlow, no model. deploy/README.md says how to run it.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /opt/imagesieve
COPY requirements-serve.txt constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    -r requirements-serve.txt -c constraints.txt
COPY main.py predictWithMyModel.py ./
COPY imagesieve ./imagesieve
# Compiled now: the user below cannot write here, and every start would compile again.
RUN python -m compileall -q .

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sorter \
    && install -d -o sorter -g sorter /srv/modelFile /srv/data /srv/data/feedback /srv/log
USER 10001
# Models, corrections and logs lie in the working directory; the first two come as volumes.
WORKDIR /srv
VOLUME ["/srv/modelFile", "/srv/data/feedback"]
EXPOSE 8133
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8133/readyz', timeout=4)"]
# More options go behind the image's name. It does not start without keys: see deploy/README.md.
ENTRYPOINT ["python", "/opt/imagesieve/main.py", \
    "--host", "0.0.0.0", "--port", "8133", "--model", "modelFile", "--feedback", "data/feedback"]

# docker build --tag grandbatch .
# docker run --rm --volume "$PWD:/data" grandbatch build strategic bars.csv --store bars.zarr
#
# For a GPU: --build-arg TORCH=torch==2.13.0, and docker run --gpus all. Under --user the kernels are
# compiled anew in each container (a quarter of a minute): the package's folder is root's.
FROM python:3.11-slim
ARG TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
WORKDIR /opt/grandbatch
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt $TORCH
COPY grandbatch grandbatch
RUN pip install --no-cache-dir --constraint constraints.txt ".[rl]"
# kernels are compiled here, once
RUN grandbatch simulate bars.csv --rows 1000 \
    && grandbatch build strategic bars.csv --store strategic.zarr \
    && grandbatch build tactical bars.csv --store tactical.zarr \
    && rm -r bars.csv *.zarr .grandbatch
WORKDIR /data
ENTRYPOINT ["grandbatch"]
